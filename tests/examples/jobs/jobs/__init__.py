"""A queue of jobs in a database: several workers, none of which does what another one does."""
