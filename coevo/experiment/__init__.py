"""Methods × bases × seeds under the same shifts: the file, its cells, their runs, and one report of all."""
