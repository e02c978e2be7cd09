"""Makers of fake distributions and providers: real dist-info folders, real modules, real ABCs."""
