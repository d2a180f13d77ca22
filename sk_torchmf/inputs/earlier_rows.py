"""Whether several processes go on from one earlier fit, each with the rows of its users. Touches no estimator."""

from sk_torchmf.inputs.exchange import check_equal, firsts_of, owners_of, send
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.storage.checkpoint import digest_of


def has_rows_to_go_on(earlier, reading):
    """Say whether a fit goes on from an earlier one, of which each process must have the rows of its users.

    Parameters
    ----------
    earlier : tuple of ndarray, ndarray and int, or None
        The users and items of the fit that this process has, and how many factors it had; None in all processes or in none.
    reading : Reading
        As ``exchange`` returns it.

    Returns
    -------
    bool
        The same in all processes.

    Raises
    ------
    ValueError
        Where the earlier fits are several, or a user's row is in another process than the user.
    """
    processes, firsts = reading.processes, firsts_of(reading)
    told = processes.all_gather(None if earlier is None else (digest_of(earlier[1]), earlier[2]))
    cure = "Fit with warm_start=False."
    states = ["one that is not" if own is None else "a fitted one" for own in told]
    check_equal(states, "warm_start=True needs an estimator that is fitted on all ranks or on none", cure)
    if any(own != told[0] for own in told):
        raise ValueError(f"warm_start=True needs the estimators of one fit, and on rank {processes.rank} items_ are others. {cure}")
    if earlier is None:
        return False
    users = earlier[0]
    owner = owners_of(users, processes.size, firsts)
    others = [users[owner == rank] if rank != processes.rank else users[:0] for rank in range(processes.size)]
    for rank, labels in enumerate(send(others, processes)):
        here = labels[lookup(labels, reading.users, "user") >= 0]
        missing = here[lookup(here, users, "user") < 0]
        if len(missing):
            raise ValueError(
                f"warm_start=True needs each user's earlier row where the user is now. That of {missing.tolist()[0]!r} is on rank "
                f"{rank}, and the user on rank {processes.rank}: the earlier fit had other processes. Go on from what gather() "
                "returns on those: save it, load it on each of these, and set distributed=True."
            )
    return True
