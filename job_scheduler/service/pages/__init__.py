"""The dashboard: HTML made by the server, usable without JavaScript, live with it."""
