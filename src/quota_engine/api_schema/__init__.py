"""What goes over the wire: the bodies of requests and answers, a module for each thing that is talked about."""
