"""Where runs happen, apart from processes: in place, in a thread, on an event loop."""
