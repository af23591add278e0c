package packetfilter

// Getsockopt lets a test ask what the product never asks.
var Getsockopt = getsockopt
