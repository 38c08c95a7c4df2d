"""The one exception that means "the user can mend this"."""


class UserError(Exception):
  """A mistake in a flag, a file or a checkpoint.

  The message names the file, line, flag or variable and says what to do about it. Scripts print it
  as one line without a traceback and exit with status 1; every other exception is a defect of ours
  and keeps its traceback.
  """
