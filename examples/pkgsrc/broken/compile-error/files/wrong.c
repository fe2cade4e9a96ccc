int
answer(void)
{
	return forty_two;	/* nobody has declared this */
}
