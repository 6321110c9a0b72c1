-- Several statements in one file; a semicolon in a text ends none.
INSERT INTO countries (code, name) VALUES ('IS', 'Iceland; the island');
INSERT INTO countries (code, name) VALUES ('NO', 'Norway');
