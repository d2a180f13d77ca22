"""Parameters of an estimator's parts in the form ``part__name``."""

import inspect

from sklearn import get_config

from sk_torchmf.estimators._saving import Factorization
from sk_torchmf.solvers.factories import did_you_mean


class PartEstimator(Factorization):
    """Keyword arguments ``module__*``, ``loss__*`` and so on, of all PARTS, are parameters as any other, for searches too."""

    PARTS: tuple[str, ...] = ("module", "loss", "optimizer", "scheduler")

    @classmethod
    def _is_option(cls, name):
        """Whether a parameter's name is that of a part's own parameter."""
        part, delimiter, own = name.partition("__")
        return bool(delimiter and own) and part in cls.PARTS

    def _set_options(self, options):
        for name, value in options.items():
            if not self._is_option(name):
                raise TypeError(f"{type(self).__name__} has no parameter {name}.{did_you_mean(name, self._known_names())}")
            setattr(self, name, value)

    def _known_names(self):
        return [*self._get_param_names(), *(f"{part}__" for part in self.PARTS)]

    def _options(self, part):
        """What was given for a part, by the part's own names."""
        return {name.removeprefix(f"{part}__"): value for name, value in vars(self).items() if name.startswith(f"{part}__")}

    def get_params(self, deep=True):
        """Get the parameters, including those of the estimator's parts.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of parameters that are estimators.

        Returns
        -------
        dict of str to object
            The values by name. ``module__*`` and the like are included as far as they were given.
        """
        return super().get_params(deep) | {name: value for name, value in vars(self).items() if self._is_option(name)}

    def set_params(self, **params):
        """Set parameters, including those of the estimator's parts.

        Parameters
        ----------
        **params
            The values by name; ``module__*`` and the like are allowed.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ValueError
            For a name that the estimator does not have.
        """
        known = {name: value for name, value in params.items() if not self._is_option(name)}
        for name in known:
            if name not in self._get_param_names():
                advice = did_you_mean(name, self._known_names())
                raise ValueError(f"Invalid parameter {name!r} for estimator {type(self).__name__}.{advice}")
        super().set_params(**known)
        for name in params.keys() - known.keys():
            setattr(self, name, params[name])
        return self

    def __repr__(self, N_CHAR_MAX=700):
        """What differs from the defaults, classes and functions by their names."""
        defaults, every = inspect.signature(type(self)).parameters, not get_config()["print_changed_only"]
        shown = [
            f"{name}={value.__name__ if hasattr(value, '__name__') else repr(value)}"
            for name, value in self.get_params(deep=False).items()
            if every or name not in defaults or repr(value) != repr(defaults[name].default)
        ]
        text = f"{type(self).__name__}({', '.join(shown)})"
        return text if len(text) <= N_CHAR_MAX else f"{text[:N_CHAR_MAX]}...)"
