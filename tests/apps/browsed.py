"""A page that counts what the browser has made of it, and reports that, twice: it reloads itself.

Its assets lie beside the application, at /static/, and come from it; `tests.system.test_browser`
writes the former.  What the page reports is written to the file $REPORTS, a line each.
"""

import json
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

PICTURES, DRAWINGS, STYLES, SCRIPTS, TABLES = 12, 8, 10, 10, 10
"""How many there are of each: 50 together. Drawings and tables are the application's."""

ASSETS = [
    *(f"/static/picture-{n}.png" for n in range(PICTURES)),
    *(f"/drawing-{n}.svg" for n in range(DRAWINGS)),
    *(f"/static/style-{n}.css" for n in range(STYLES)),
    *(f"/static/script-{n}.js" for n in range(SCRIPTS)),
    *(f"/table-{n}.json" for n in range(TABLES)),
]

SOUND = "/static/sound.wav"

PAGE = f"""<!doctype html>
<title>Fifty assets</title>
<link rel="icon" href="data:,">
{"".join(f'<link rel="stylesheet" href="/static/style-{n}.css">' for n in range(STYLES))}
<script>const ran = new Set();</script>
<body>
{"".join(f'<img src="/static/picture-{n}.png">' for n in range(PICTURES))}
{"".join(f'<img src="/drawing-{n}.svg">' for n in range(DRAWINGS))}
{"".join(f'<script src="/static/script-{n}.js"></script>' for n in range(SCRIPTS))}
<script>
async function look() {{
    const tables = await Promise.all([...Array({TABLES}).keys()].map(
        async n => (await fetch(`/table-${{n}}.json`)).json()));
    const style = getComputedStyle(document.body);
    const sound = new Audio("{SOUND}");
    const length = await new Promise((heard, failed) => {{
        sound.oncanplaythrough = () => heard(sound.duration);
        sound.onerror = () => failed(sound.error.message);
    }});
    const part = await fetch(
        "{SOUND}", {{ headers: {{ Range: "bytes=8-11" }}, cache: "no-store" }});
    const entries = performance.getEntriesByType("resource");
    return {{
        pictures: [...document.images].filter(image => image.naturalWidth === 7).length,
        styles: [...Array({STYLES}).keys()].filter(
            n => style.getPropertyValue(`--style-${{n}}`) === "there").length,
        scripts: ran.size,
        tables: tables.filter((table, n) => table.number === n).length,
        workers: tables.map(table => table.worker),
        sound: length,
        part: [part.status, await part.text()],
        packed: entries.filter(entry => entry.encodedBodySize < entry.decodedBodySize)
            .map(entry => new URL(entry.name).pathname),
    }};
}}
addEventListener("load", async () => {{
    let report;
    try {{ report = await look(); }} catch (problem) {{ report = {{ problem: String(problem) }}; }}
    await fetch("/report", {{ method: "POST", body: JSON.stringify(report) }});
    if (!sessionStorage.again) {{ sessionStorage.again = "yes"; location.reload(); }}
}});
</script>
""".encode()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/report":
        with open(os.environ["REPORTS"], "ab") as reports:
            reports.write(environ["wsgi.input"].read() + b"\n")
        start_response("204 No Content", [])
        return []
    number = path.rpartition("-")[2].partition(".")[0]
    if path == "/":
        kind, body = "text/html", PAGE
    elif path.startswith("/drawing-"):
        kind = "image/svg+xml"
        body = b'<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"></svg>'
    else:
        kind = "application/json"
        table = {"number": int(number), "worker": os.getpid(), "rows": [*range(1000)]}
        body = json.dumps(table).encode()
    headers = [("Content-Type", kind), ("Cache-Control", "no-cache"), ("ETag", f'"{path}"')]
    if environ.get("HTTP_IF_NONE_MATCH") in (f'"{path}"', f'W/"{path}"'):
        start_response("304 Not Modified", headers)
        return []
    start_response("200 OK", headers)
    return [body]
