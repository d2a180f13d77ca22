"""How the compiled kernels get into a wheel: where a C compiler is, and without a word where not. Runs when a wheel is built."""

import os
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCE = Path("sk_torchmf", "nn", "kernels.c")
FLAGS = "-O2", "-shared", "-fPIC", "-fvisibility=hidden"
VARIANTS = ("-DCLONES",), ()  # code for newer processors beside that for all of them, where the compiler can


def compile_kernels(source, library):
    """Compile the kernels.

    Parameters
    ----------
    source, library : path
        The C file, and the shared library to be made.

    Returns
    -------
    bool
        Whether it was made: where there is no compiler, or none that can, it was not, and the package does without.
    """
    if os.environ.get("SK_TORCHMF_KERNELS") == "torch":
        return False
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]
    for variant in VARIANTS:
        try:
            done = subprocess.run([*compiler, *FLAGS, *variant, "-o", str(library), str(source)], capture_output=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode == 0:
            return True
    return False


class KernelsHook(BuildHookInterface):
    """Hatchling's hook: adds the library to a wheel, which is then of one platform, or beside the source of an editable install."""

    def initialize(self, version, build_data):
        """Compile before the wheel is put together."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        library = root / SOURCE.with_name("libkernels.so")
        if version != "editable":
            self._folder = tempfile.TemporaryDirectory()
            library = Path(self._folder.name, "libkernels.so")
        if compile_kernels(root / SOURCE, library):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(iter(platform_tags()))}"
            if version != "editable":
                build_data["force_include"][str(library)] = str(SOURCE.with_name("libkernels.so"))

    def finalize(self, version, build_data, artifact_path):
        """Remove what was compiled on the way."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
