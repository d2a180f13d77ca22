"""What fits that several processes share have beside others: a refusal of what cannot be shared, and ``gather`` afterwards."""

import copy

from sklearn.utils.validation import check_is_fitted

from sk_torchmf.distributed import communicator
from sk_torchmf.estimators._saving import SavedEstimator, is_fitted_attribute
from sk_torchmf.estimators._sharing import check_shareable, joined


class Gathering(SavedEstimator):
    """Base of the estimators that have the parameter ``distributed``, before the others."""

    distributed: bool

    def _check_shared(self, processes, **given):
        check_shareable(self, processes, **given)

    def gather(self):
        """Put the parts of a fit with ``distributed`` together: an estimator with the users of all processes.

        After such a fit a process knows its own users only. All processes call this at once, and each must have the memory for all
        users and ratings.

        Returns
        -------
        estimator
            Of this class, with ``distributed=False``: what one process would have fitted to all the data, on every process. Of an
            estimator that is not distributed, a copy.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            Where these are not all processes of the fit, or not its processes alone.
        DistributedError
            Where another process fails or is lost.

        Examples
        --------
        >>> from sk_torchmf import BiasedMatrixFactorization, datasets
        >>> X = datasets.make_ratings(n_users=50, n_items=20, n_ratings=500, random_state=0).interactions
        >>> whole = BiasedMatrixFactorization(n_factors=2, random_state=0).fit(X).gather()
        >>> whole.n_users_
        50
        """
        check_is_fitted(self)
        attributes = {name: value for name, value in vars(self).items() if is_fitted_attribute(name)}
        if self.distributed:
            with communicator(True) as processes:
                attributes = joined(attributes, processes)
        return copy.copy(self)._publish(attributes).set_params(distributed=False)
