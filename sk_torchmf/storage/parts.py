"""A folder of files, one of each of several processes, and a manifest of the last whole set. It knows nothing of what they hold."""

import contextlib
import errno
import json
import os
import re

from sk_torchmf._version import __version__
from sk_torchmf.storage import archive

FORMAT = 1  # raised by a change that an older version would misread
MANIFEST = "parts.json"
_FILE = re.compile(r"[\w\-]{1,100}\.\d{1,9}-of-\d{1,9}\.npz", re.ASCII)
_LEFT = re.compile(r"\.(?:parts\.json|part-\d{1,9})\.tmp", re.ASCII)  # by a process that was killed


class PartsFolder:
    """A folder on storage that all processes see, in which each writes a file of its own.

    The files of a set lie beside those of the last one until all are whole; then the manifest, which is replaced at once, names
    them, and the older ones are removed. So whenever a process is killed, the folder holds the last whole set or the one before.

    Parameters
    ----------
    path : str or os.PathLike
        There may be nothing yet.
    kind : str
        What the folder holds, one word.

    Attributes
    ----------
    path : str
    """

    def __init__(self, path, kind):
        self.path, self.kind = archive.check_path(path), kind

    def write(self, name, meta, part, processes):
        """Write a set, in the place of what was there. All processes call it, inside ``with processes:``.

        Parameters
        ----------
        name : str
            Of the set: letters, digits, ``_`` and ``-``. That of the first process counts.
        meta : dict
            What JSON can hold; of the first process, and at hand before any file is read.
        part : tuple of dict, dict and dict
            Of this process: what JSON can hold, arrays, and what of it shall be at hand before the file is read, JSON again.
        processes : Communicator
        """
        if processes.rank == 0:
            self._begin()
        name = processes.broadcast(name)
        content, arrays, about = part
        file = f"{name}.{processes.rank}-of-{processes.size}.npz"
        if not os.path.isdir(self.path):
            self._fail_to_see(processes.rank)
        archive.write(os.path.join(self.path, file), content, arrays, temporary=f".part-{processes.rank}.tmp")
        files = dict(processes.all_gather((file, about)))
        if processes.rank == 0:
            for rank, own in enumerate(files):
                if not os.path.exists(os.path.join(self.path, own)):
                    self._fail_to_see(0, rank)
            self._name(meta, files)
            self._remove_all_but(files)

    def _begin(self):
        """Make the folder, or see that it is one of these."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            if not os.path.isdir(self.path):
                raise FileExistsError(
                    errno.EEXIST, "Several processes save into a folder, and this is a file. Name another path", self.path
                ) from None
            strange = sorted(name for name in os.listdir(self.path) if not _is_own(name))
            if strange:
                text = f"The folder holds other files ({strange[0][:80]}). Name one that is empty or not there"
                raise FileExistsError(errno.EEXIST, text, self.path) from None
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT, "The folder to make this one in does not exist. Make it first", os.path.dirname(self.path)
            ) from None

    def _fail_to_see(self, rank, other=0):
        what = f"the file that rank {other} has written to it" if other else "it, which rank 0 has made"
        raise FileNotFoundError(
            errno.ENOENT, f"The folder must be on storage that all ranks share. Rank {rank} does not see {what}", self.path
        )

    def _name(self, meta, files):
        header = {"format": "sk_torchmf parts", "version": FORMAT, "written_by": __version__, "kind": self.kind}
        header |= {"meta": meta, "files": [{"name": name, "about": about} for name, about in files.items()]}
        place = os.path.join(self.path, MANIFEST)
        with archive.replacing(place, temporary=f".{MANIFEST}.tmp") as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(header, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())

    def _remove_all_but(self, files):
        for name in os.listdir(self.path):
            if _is_own(name) and name != MANIFEST and name not in files:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(self.path, name))

    def manifest(self):
        """Read what the last whole set is.

        Returns
        -------
        dict or None
            ``meta``, as it was given, and ``files``, a list of dict with ``name`` and ``about``; None where there is no set.

        Raises
        ------
        ValueError
            For a folder of something else or of a newer version.
        """
        try:
            with open(os.path.join(self.path, MANIFEST), encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise self._wrong("it is a file") from None
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"{MANIFEST} is not valid JSON ({error})") from None
        if not isinstance(found, dict) or found.get("format") != "sk_torchmf parts" or type(found.get("version")) is not int:
            raise self._wrong(f"{MANIFEST} does not say that it is one")
        if found["version"] > FORMAT:
            raise ValueError(
                f"{self.path} was written by a newer sk_torchmf ({str(found.get('written_by'))[:40]}): it has format "
                f"{found['version']}, and sk_torchmf {__version__} reads formats up to {FORMAT}. Upgrade sk_torchmf."
            )
        if found.get("kind") != self.kind:
            raise self._wrong(f"it holds a {str(found.get('kind'))[:40]}")
        if not isinstance(found.get("meta"), dict) or not _are_files(found.get("files")):
            raise self._wrong(f"{MANIFEST} does not list its files")
        return {"meta": found["meta"], "files": found["files"]}

    def _wrong(self, reason):
        return ValueError(f"{self.path} is not a folder of a whole {self.kind} that sk_torchmf wrote: {reason}.")

    def at(self, name):
        """The path of a file of the set."""
        return os.path.join(self.path, name)

    def read(self, name):
        """Read a file of the set: ``meta`` and ``arrays``, see ``archive.read``."""
        try:
            return archive.read(self.at(name))
        except FileNotFoundError:
            raise self._wrong(f"{name} is missing") from None

    def remove(self):
        """Remove the folder and what is in it of this."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.path, MANIFEST))  # first: what is left after a kill is no set
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._remove_all_but(())
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


def _is_own(name):
    return name == MANIFEST or _FILE.fullmatch(name) is not None or _LEFT.fullmatch(name) is not None


def _are_files(files):
    """Whether a manifest's list of files is one, so that nothing else is ever opened."""
    return (
        isinstance(files, list)
        and len(files) > 0
        and all(
            isinstance(one, dict)
            and isinstance(one.get("name"), str)
            and _FILE.fullmatch(one["name"])
            and isinstance(one.get("about"), dict)
            for one in files
        )
    )
