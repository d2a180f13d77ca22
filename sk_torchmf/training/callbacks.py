"""scikit-learn's callbacks where there are any (1.9 and later), else nothing."""

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks, and ``set_callbacks`` is not there."""

    def with_callbacks(method):
        """The method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Tasks", "with_callbacks"]


class Tasks:
    """A fit as scikit-learn's callbacks see it: a task, with a task for each part of it, and one for each epoch.

    Parameters
    ----------
    estimator : estimator
    data : dict
        What callbacks may ask for, ``X, y, metadata``: values, or functions that make them.
    n_subtasks : int
    context : CallbackContext, optional
        Of the task; by default that of the whole fit.
    """

    def __init__(self, estimator, data, n_subtasks, context=None):
        self.estimator, self.data, self.epoch = estimator, data, None
        if context is None and hasattr(estimator, "_init_callback_context"):
            context = estimator._init_callback_context(max_subtasks=n_subtasks)
        self.context = context if getattr(estimator, "_skl_callbacks", None) else None
        if self.context is not None:
            self.context.call_on_fit_task_begin(estimator=estimator, **data)

    def part(self, name, n_subtasks):
        """A part of the task."""
        context = None if self.context is None else self.context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return Tasks(self.estimator, self.data, n_subtasks, context) if context else self

    def begin(self):
        """Begin an epoch."""
        if self.context is not None:
            self.epoch = self.context.subcontext(task_name="epoch")
            self.epoch.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def end(self, fitted):
        """End the epoch; whether a callback asks to stop. ``fitted`` makes an estimator as it would be if training ended here."""
        return self._end(self.epoch, fitted)

    def close(self, fitted):
        """End the task."""
        self._end(self.context, fitted)

    def _end(self, context, fitted):
        if context is None:
            return False
        return context.call_on_fit_task_end(
            estimator=self.estimator, **self.data, reconstruction_attributes=lambda: vars(fitted()).copy()
        )
