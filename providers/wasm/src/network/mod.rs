//! Pod networks: the addresses of pods and the sockets of their guests.
