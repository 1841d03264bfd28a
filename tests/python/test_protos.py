"""The trimmed protos must agree with Envoy's own descriptors: package, names, numbers, types."""
import pathlib
import subprocess
import sys

import pytest

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from envoy.type.v3 import http_status_pb2
from google.protobuf import descriptor_pb2

PROTO = pathlib.Path(__file__).resolve().parents[2] / "services" / "proto"
THEIRS = {m.DESCRIPTOR.name: m.DESCRIPTOR
          for m in (base_pb2, processing_mode_pb2, external_processor_pb2, http_status_pb2)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    out = tmp_path_factory.mktemp("protos") / "set.pb"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", "--include_imports",
                    f"--descriptor_set_out={out}", *THEIRS], check=True, cwd=PROTO)
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {f.name: f for f in files.file if f.name in THEIRS}


def messages(proto, prefix=""):
    for message in proto.message_type if not prefix else proto.nested_type:
        name = f"{prefix}{message.name}"
        yield name, message
        yield from messages(message, name + ".")


def enums(file):
    yield from ((e.name, e) for e in file.enum_type)
    for name, message in messages(file):
        yield from ((f"{name}.{e.name}", e) for e in message.enum_type)


def test_every_field_has_envoys_number_and_type(ours):
    compared = 0
    for name, file in ours.items():
        theirs = descriptor_pb2.FileDescriptorProto()
        THEIRS[name].CopyToProto(theirs)
        assert file.package == theirs.package
        reference = dict(messages(theirs))
        for message_name, message in messages(file):
            fields = {f.name: f for f in reference[message_name].field}
            for field in message.field:
                other = fields[field.name]
                assert (field.number, field.type, field.label, field.type_name) == \
                    (other.number, other.type, other.label, other.type_name), f"{message_name}.{field.name}"
                compared += 1
    assert compared > 50


def test_every_enum_value_is_envoys(ours):
    for name, file in ours.items():
        theirs = descriptor_pb2.FileDescriptorProto()
        THEIRS[name].CopyToProto(theirs)
        reference = dict(enums(theirs))
        for enum_name, enum in enums(file):
            values = {v.name: v.number for v in reference[enum_name].value}
            assert all(values[v.name] == v.number for v in enum.value), enum_name
