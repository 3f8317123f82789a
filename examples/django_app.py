"""A Django application in one file: pages, a form, a session, an upload, a stream, a file.

prefork serve examples.django_app:application --workers 4
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

HERE = Path(__file__).resolve().parent

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Django on prefork</title>
<h1>Hello, {{ name }}</h1>
<p>Worker {{ pid }} answers; you were here {{ visits }} times.</p>
<form method="post" action="{% url 'name' %}">{% csrf_token %}
<label>Your name <input name="name" required></label> <button>Save</button></form>
<form method="post" action="{% url 'upload' %}" enctype="multipart/form-data">{% csrf_token %}
<label>A file <input type="file" name="file" required></label> <button>Send</button></form>
<p><a href="{% url 'stream' %}">A stream</a>, <a href="{% url 'file' %}">a file</a>,
<a href="{% url 'cookie' %}">a cookie</a></p></html>
"""

settings.configure(
    # Every worker has to know the same key: a session that one has signed, another reads.
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example only"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})]
            },
        }
    ],
)


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    told = {"name": session.get("name", "you"), "pid": os.getpid(), "visits": session["visits"]}
    return render(request, "page.html", told)


@require_POST
def name(request: HttpRequest) -> HttpResponse:
    """The form; without its token it is Django's own 403."""
    if not request.POST.get("name"):
        return HttpResponseBadRequest("a name is needed\n", content_type="text/plain")
    request.session["name"] = request.POST["name"]
    return redirect("index")


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Name, size and SHA-256 of the uploaded file."""
    sent = request.FILES.get("file")
    if sent is None:
        return HttpResponseBadRequest("a file is needed\n", content_type="text/plain")
    digest = hashlib.sha256()
    for piece in sent.chunks():
        digest.update(piece)
    return JsonResponse({"name": sent.name, "size": sent.size, "sha256": digest.hexdigest()})


@require_GET
def stream(request: HttpRequest) -> StreamingHttpResponse | HttpResponseBadRequest:
    """?n= lines (at most 1,000) with ?delay= seconds (at most 1) between them."""
    try:
        n = min(int(request.GET.get("n", "5")), 1000)
        delay = min(max(float(request.GET.get("delay", "0.5")), 0.0), 1.0)
    except ValueError:
        return HttpResponseBadRequest("n and delay are numbers\n", content_type="text/plain")

    def lines() -> Iterator[str]:
        for number in range(n):
            if number:
                time.sleep(delay)
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


@require_GET
def file(request: HttpRequest) -> FileResponse:
    """The README beside this file, by wsgi.file_wrapper where the server has one."""
    return FileResponse((HERE / "README.md").open("rb"), content_type="text/plain")


@require_GET
def cookie(request: HttpRequest) -> HttpResponse:
    """Counts in a plain cookie."""
    text = request.COOKIES.get("count", "0")
    count = int(text) + 1 if text.isascii() and text.isdigit() else 1
    response = HttpResponse(f"{count}\n", content_type="text/plain")
    response.set_cookie("count", str(count), httponly=True, samesite="Lax")
    return response


urlpatterns = [
    path("", index, name="index"),
    path("name", name, name="name"),
    path("upload", upload, name="upload"),
    path("stream", stream, name="stream"),
    path("file", file, name="file"),
    path("cookie", cookie, name="cookie"),
]

application = get_wsgi_application()
