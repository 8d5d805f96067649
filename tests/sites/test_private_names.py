"""The private names of PyTorch that `feedback_adapter.sites` uses: here an update fails first."""

import ast
import re
from pathlib import Path

import pytest
import torch
import torch._dynamo.eval_frame
import torch.utils.checkpoint
import torch.utils.flop_counter
from torch._ops import OpOverload

import feedback_adapter
from feedback_adapter.sites.torch_patches import PRIVATE_NAMES

FOLDER = Path(feedback_adapter.__file__).parent / "sites"
OWN = {"self", "cls", "_thread"}
OWNERS = {  # what isn't a module or a class, but a thing made of one
    "torch.compile(torch.nn.Identity())": lambda: torch.compile(torch.nn.Identity()),
    "torch.nn.Module()": torch.nn.Module,
    "torch._ops.OpOverload": lambda: torch.ops.aten.add.Tensor,
    "torch.Tensor": lambda: torch.zeros(1),
    "torch.UntypedStorage": lambda: torch.zeros(1).untyped_storage(),
}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_torch_has_it(name: str):
    path, _, attribute = name.rpartition(".")
    if path in OWNERS:
        owner = OWNERS[path]()
    else:
        owner = torch
        for step in path.split(".")[1:]:
            owner = getattr(owner, step)
    assert hasattr(owner, attribute), f"torch {torch.__version__} has no {name}"


def test_the_handle_of_an_operation_is_what_the_recorder_reads():
    add = torch.ops.aten.add_.Tensor
    assert isinstance(add, OpOverload)
    assert add._schema.is_mutable
    assert add._schema.arguments[0].alias_info.is_write
    assert torch.ops.aten.mm.default._overloadpacket in torch.utils.flop_counter.flop_registry


def test_the_list_is_complete():
    listed = {name.rpartition(".")[2] for name in PRIVATE_NAMES}
    listed |= {step for name in PRIVATE_NAMES for step in name.split(".") if step.startswith("_")}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            found = set()
            if isinstance(node, ast.Attribute):
                found = set() if getattr(node.value, "id", "") in OWN else {node.attr}
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("torch"):
                found = {*node.module.split(".")}
            elif isinstance(node, ast.Constant) and file.name == "torch_patches.py":
                found = {node.value} if isinstance(node.value, str) else set()
            private = {n for n in found if re.fullmatch(r"_[a-zA-Z]\w*", n)}
            assert private <= listed, f"{file.name} uses {private - listed}: add to PRIVATE_NAMES"
