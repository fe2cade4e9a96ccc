"""clusterbuild: runs jobs on hosts, keeps what they make, and says how it went."""
