"""The connections of one worker and the applications and handlers that answer them."""
