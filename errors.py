"""An error the user can fix."""


class UserError(Exception):
  """A mistake in a flag, a file or a checkpoint.

  The message names the file, line, flag or variable and says what to do. Scripts print it as
  one line without a traceback and exit with status 1. Any other exception is a bug and keeps its
  traceback.
  """
