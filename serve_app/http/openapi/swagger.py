"""``GET /docs``: Swagger UI from the installed package. Nothing is fetched from outside."""

from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from serve_app.domain.errors import NotFound
from serve_app.protocols.json_body import shown

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>rerank-serve</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Without `validatorUrl: null`, Swagger UI sends its address to an external validator.
START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


async def docs(_request: Request) -> Response:
    """Its links are relative, to work below a path prefix."""
    return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})


class DocsFiles:
    """The files that the page loads."""

    def __init__(self) -> None:
        root = resources.files("fastapi_swagger.resources")
        self._files = {
            name: (root.joinpath(name).read_bytes(), kind) for name, kind in MEDIA_TYPES.items()
        }
        self._files["start.js"] = (START, "text/javascript")

    async def answer(self, request: Request) -> Response:
        """Raises: NotFound."""
        name = request.path_params["name"]
        if name not in self._files:
            raise NotFound(f"file '{shown(name)}'", None)
        content, kind = self._files[name]
        return Response(content, headers={"cache-control": "max-age=86400"}, media_type=kind)
