"""Roles: what a viewer, an operator, an approver and an application may do, as grants of Postgres.

A collection has one NOLOGIN role for each kind, created by the first `grant`; a role gets a right by membership in
it. Postgres enforces everything; reading rights here only serves to offer what is allowed. The schema, the policy
of cutovers and these grants belong to the owner of the schema.
"""
