INSERT INTO events (what) VALUES ('installed');
