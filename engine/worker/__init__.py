"""The heavy side: started as a process of its own, imported by nobody."""
