"""Result files and reference tables in, published tables out."""
