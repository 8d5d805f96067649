"""Whom the server doesn't answer, and what it doesn't read or take in."""

import io

import pytest
from PIL import Image

from fa_annotate.desk import Playground
from fa_annotate.photos import MOST_BYTES


@pytest.fixture(scope="module")
def server(serve, tiny_session, draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        draw(folder / f"photo{number}.png", seed=number)
    return serve(tiny_session(folder))


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": ""},
    {"Host": "192.168.0.7"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_are_not_answered(server, headers):
    revision = server.session.answers.revision
    for path in ("/api/session", "/api/photos/1.jpg", "/static/page.js"):
        assert server.ask(path, headers=headers)[0] == 403
    body = {"session": server.session.id, "revision": revision}
    body |= {"kind": "label", "name": "cat", "value": 1}
    assert server.tell("/api/photos/1/answers", body, headers)[0] == 403
    assert server.session.answers.revision == revision


def test_a_form_of_another_site_cannot_answer(server):
    body = {"session": server.session.id, "revision": server.session.answers.revision}
    body |= {"kind": "label", "name": "cat", "value": 1}
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        told = server.tell("/api/photos/1/answers", body, {"Content-Type": kind})
        assert told[0] == 400


def test_a_link_of_another_site_may_open_the_page_and_no_more(server):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    status, headers, _ = server.ask("/", headers=link)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert server.ask("/api/export/csv", headers=link)[0] == 403


@pytest.mark.parametrize(
    "path",
    ["/../secret.png", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py",
     "/api/photos/../../secret.jpg", "/api/export/..%2Fcsv", "/api/photos/-1.jpg"],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(server, path):
    assert server.ask(path)[0] in (400, 404)


def test_links_that_lead_out_of_the_folder_are_no_photos(tmp_path, draw, serve, tiny_session):
    secret = draw(tmp_path / "secret" / "secret.png")
    draw(tmp_path / "photos" / "own.png")
    draw(tmp_path / "photos" / "later.png")
    (tmp_path / "photos" / "link.png").symlink_to(secret)
    (tmp_path / "photos" / "folder").symlink_to(secret.parent)
    (tmp_path / "photos" / "inside.png").symlink_to(tmp_path / "photos" / "own.png")
    server = serve(tiny_session(tmp_path / "photos"))
    assert server.session.photos.names == ["inside.png", "later.png", "own.png"]
    (tmp_path / "photos" / "later.png").unlink()
    (tmp_path / "photos" / "later.png").symlink_to(secret)
    status, _, told = server.ask("/api/photos/1/state")
    assert status == 400
    assert "leads out of" in told["error"]


def test_too_large_requests_and_photos_are_refused(tmp_path, draw, serve, tiny_session):
    draw(tmp_path / "own.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "vast.png")
    server = serve(tiny_session(tmp_path))
    assert server.tell("/api/photos/0/answers", {"text": "x" * 70_000})[0] == 413
    status, _, told = server.ask("/api/photos/1/state")
    assert status == 400
    assert "million pixels" in told["error"]
    assert server.ask("/api/photos?name=a.png", "POST", b"x")[0] == 400  # only in the playground


def test_the_playground_takes_photos_in_within_limits(serve):
    server = serve(Playground.open())
    folder = server.desk.folder
    before = sorted(folder.iterdir())
    assert server.ask("/api/photos?name=a.png", "POST", bytes(MOST_BYTES + 1))[0] == 413
    vast = io.BytesIO()
    Image.new("1", (9000, 9000)).save(vast, "PNG")
    status, _, told = server.ask("/api/photos?name=vast.png", "POST", vast.getvalue())
    assert (status, "million pixels" in told["error"]) == (400, True)
    assert server.ask("/api/photos?name=a.png", "POST", b"no photo")[0] == 400
    assert sorted(folder.iterdir()) == before
    small = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(small, "PNG")
    for name in ("../../evil.png", "%2Fetc%2Fpasswd", "a%00b.png", ""):
        status, _, told = server.ask(f"/api/photos?name={name}", "POST", small.getvalue())
        assert status == 200
        assert (folder / server.session.photos.names[told["image"]]).resolve().parent == folder
    assert server.ask("/api/session?checkpoint=../x")[0] == 400


def test_others_need_the_token(tmp_path, draw, serve, tiny_session):
    draw(tmp_path / "own.png")
    token = "a-secret-of-many-letters"
    server = serve(tiny_session(tmp_path), host="0.0.0.0", token=token)
    other = {"Host": "192.168.0.7:8765"}
    assert server.ask("/api/session", headers=other)[0] == 401
    assert server.ask("/?token=wrong", headers=other)[0] == 401
    assert server.ask(f"/api/session?token={token}", headers=other)[0] == 401
    status, headers, _ = server.ask(f"/?token={token}", headers=other)
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    with_cookie = {**other, "Cookie": cookie.partition(";")[0]}
    assert server.ask("/api/session", headers=with_cookie)[0] == 200
    assert server.ask("/api/session", headers={"Authorization": f"Bearer {token}"})[0] == 200
    assert server.ask("/", headers={**with_cookie, "Host": "evil.example"})[0] == 403
