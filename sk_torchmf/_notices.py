"""Notices that torch gives of itself once in a process; taken here, since to catch a warning in a call is not safe in threads."""

import warnings

import torch


def take():
    """Have torch say now what it says once: that its CSR layout is in beta, and that it does not check sparse tensors."""
    index, value = torch.zeros(1, dtype=torch.int64, device="cpu"), torch.ones(1, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 1], device="cpu"), index, value, (1, 1))
        torch.sparse_coo_tensor(index[None], value, (1,))
