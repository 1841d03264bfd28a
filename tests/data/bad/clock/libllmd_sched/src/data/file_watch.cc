int no_clock_is_read_here;
