"""Five ratings of three users in each input form, for what does not depend on how many there are."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf import Interactions, MatrixFactorization

X = np.array([[0, 0], [0, 1], [1, 0], [2, 1], [2, 2]])
Y = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
S = sp.csr_array((Y, X.T.copy()), shape=(3, 3))
I = Interactions(*X.T, Y)  # noqa: E741
FORMS = {"table": (X, Y), "container": (I, None), "sparse": (S, None)}
SOLVERS = dict.fromkeys(["adam", MatrixFactorization().solver])
