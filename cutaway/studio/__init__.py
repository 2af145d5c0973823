"""The studio: a page on this machine on which one types a text, watches a model read it, changes it and keeps the rest.

It is made of the components of the page of `explain`, and of routes on the server's app, behind the server's guards.
"""
