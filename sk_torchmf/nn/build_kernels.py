"""How the compiled kernels get into a wheel: where a C compiler is, and without a word where not. Runs when a wheel is built."""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCE = Path("sk_torchmf", "nn", "kernels.c")
FLAGS = "-O2", "-shared", "-fPIC", "-fno-strict-aliasing"
ITS_OWN = "-Wl,-Bsymbolic"  # functions call those of this library, whatever other libraries call theirs
VARIANTS = ("-DCLONES", ITS_OWN), (ITS_OWN,), ()  # code for newer processors beside that for all of them, where the compiler can
FUNCTIONS = "kernels_version()", "gradient", "squares", "dots", "half_step", "steps", "moments"
LOADS = "import ctypes, sys; found = ctypes.CDLL(sys.argv[1])" + "".join(f"; found.{name}" for name in FUNCTIONS)


def compilers():
    """The commands to try: that of the environment variable CC, else the one that Python was built with and the system's."""
    if os.environ.get("CC"):
        return [shlex.split(os.environ["CC"])]
    return [shlex.split(sysconfig.get_config_var("CC") or "cc"), ["cc"]]


def compile_kernels(source, library):
    """Compile the kernels.

    Parameters
    ----------
    source, library : path
        The C file, and the shared library to be made. One that is there already is removed.

    Returns
    -------
    bool
        Whether it was made and loads: where there is no compiler, or none that can, it was not, and the package does without.
    """
    library = Path(library).absolute()
    library.unlink(missing_ok=True)
    if os.environ.get("SK_TORCHMF_KERNELS") == "torch":
        return False
    for compiler in compilers():
        for variant in VARIANTS:
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # the library is there whole or not at all
                made = Path(folder, library.name)
                command = [*compiler, *FLAGS, *variant, "-o", str(made), str(source)]
                if _succeeds(command) and _succeeds([sys.executable, "-c", LOADS, str(made)]):
                    made.replace(library)
                    return True
    return False


def _succeeds(command):
    try:
        return subprocess.run(command, capture_output=True, timeout=300).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class KernelsHook(BuildHookInterface):
    """Hatchling's hook: adds the library to a wheel, which is then of one platform, or beside the source of an editable install."""

    def initialize(self, version, build_data):
        """Compile before the wheel is put together."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        library = root / SOURCE.with_name("kernels.library")
        if version != "editable":
            self._folder = tempfile.TemporaryDirectory()
            library = Path(self._folder.name, "kernels.library")
        if compile_kernels(root / SOURCE, library):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(iter(platform_tags()))}"
            if version != "editable":
                build_data["force_include"][str(library)] = str(SOURCE.with_name("kernels.library"))

    def finalize(self, version, build_data, artifact_path):
        """Remove what was compiled on the way."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
