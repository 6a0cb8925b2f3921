"""What a Linux kernel build is: pure domain, standard library only, no I/O, no clock, no chance."""
