"""Roles: what a viewer, an operator and an approver may do, as grants of Postgres."""
