UPDATE countries SET name = 'Iceland' WHERE code = 'IS';
