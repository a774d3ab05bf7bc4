"""Who may do what: the one table of rights, and the only package that asks Django for a permission.

Pages (omni.middleware holds them against PAGES), sockets (PageSocket.permission), the
administration (RightsAdmin holds it against ADMIN), services (`require`) and templates
(`{% if may.operate %}`) all ask it. A test keeps codenames and `has_perm` out of every other file.
"""
