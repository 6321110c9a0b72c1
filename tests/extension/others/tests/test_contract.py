from pytest_asyncdb.testing import BackendContract


class TestContract(BackendContract):
    """For the backend, driver and server provider of the command line."""
