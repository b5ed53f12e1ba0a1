# What cloud-init's own code makes of user-data documents: "taken", or why it would ignore or fail on one. Its input is a JSON
# object of documents in base64 by name, its output one of verdicts. Nothing is fetched and nothing is written.
import base64, json, logging, sys
from cloudinit import handlers, user_data, util
from cloudinit.handlers import cloud_config, jinja_template
from cloudinit.helpers import Paths


class Fetched:
    code, contents = 200, b"#cloud-config\n{a: b}\n"

    def ok(self):
        return True


complaints = []


class Listen(logging.Handler):
    def emit(self, record):
        complaints.append(record.getMessage())


logging.getLogger().addHandler(Listen(logging.WARNING))
logging.getLogger().setLevel(logging.WARNING)
user_data.read_file_or_url = lambda url, **kwargs: Fetched()


class NoPaths(Paths):
    def get_ipath(self, name=None):
        return "/nowhere"

    get_ipath_cur = get_ipath


INSTANCE = {"v1": {"local_hostname": "box", "instance_id": "i-1"}}


def handle(kind, filename, payload, headers):
    if kind == "text/jinja2":
        if payload.split("\n")[0].strip() != "## template: jinja":
            raise ValueError("not a jinja template")
        payload = jinja_template.render_jinja_payload(payload, filename, INSTANCE)
        if payload is None:
            raise ValueError("it renders to nothing")
        kind = handlers.type_from_starts_with(payload)
        if kind not in ("text/cloud-config", "text/cloud-config-jsonp", "text/x-shellscript"):
            raise ValueError("a template of %s" % kind)
    if kind in ("text/cloud-config", "text/cloud-config-jsonp"):
        config = cloud_config.CloudConfigPartHandler(NoPaths({}))
        if kind == "text/cloud-config" and not (util.load_yaml(payload, default=0) or complaints):
            return  # nothing in it, or null
        config.handle_part(None, kind, filename, payload, "always", headers)
        if not complaints and not config.cloud_buf:
            raise ValueError("merged into nothing")
    elif kind.startswith("text/x-shellscript"):
        if not payload.startswith("#!"):
            raise ValueError("no interpreter")
    elif kind == "text/cloud-boothook":
        if not util.strip_prefix_suffix(payload, prefix="#cloud-boothook").lstrip().startswith("#!"):
            raise ValueError("no interpreter")
    elif kind.startswith("text/") and kind not in ("text/part-handler", "text/x-mine"):
        raise ValueError("nobody handles %s" % kind)


def judge(document):
    complaints.clear()
    parts = 0

    def part(data, filename, payload, headers):
        nonlocal parts
        parts += 1
        if isinstance(payload, bytes):
            payload = payload.decode()
        handle(headers["Content-Type"], filename, payload, headers)

    try:
        handlers.walk(user_data.UserDataProcessor(NoPaths({})).process(document), part, None)
        if not parts:
            raise ValueError("nothing in it")
    except Exception as e:
        complaints.append("%s: %s" % (type(e).__name__, e))
    return complaints[0] if complaints else "taken"


print(json.dumps({name: judge(base64.b64decode(blob)) for name, blob in json.load(sys.stdin).items()}))
