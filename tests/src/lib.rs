//! A laboratory of network namespaces: pods, a node and the outside, with real sockets.
