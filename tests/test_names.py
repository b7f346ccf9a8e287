"""Names: what a package exports does not hide one of its modules."""

import importlib
import pkgutil
from types import ModuleType

import numpylrp


def packages():
    yield numpylrp
    for found in pkgutil.walk_packages(numpylrp.__path__, "numpylrp."):
        if found.ispkg:
            yield importlib.import_module(found.name)


def test_no_function_hides_a_module():
    """``numpylrp.NAME`` is the module of that name wherever there is one."""
    hidden = [
        f"{package.__name__}.{module.name}"
        for package in packages()
        for module in pkgutil.iter_modules(package.__path__)
        if not isinstance(vars(package).get(module.name, package), ModuleType)
    ]
    assert not hidden
