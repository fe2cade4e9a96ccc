#include <stdlib.h>

#include "pix.h"

static int
inside(const struct pix *pix, int x, int y)
{
	return x >= 0 && x < pix->width && y >= 0 && y < pix->height;
}

unsigned
pix_get(const struct pix *pix, int x, int y)
{
	return inside(pix, x, y) ? pix->points[(size_t)y * (size_t)pix->width + (size_t)x] : 0;
}

void
pix_set(struct pix *pix, int x, int y, unsigned colour)
{
	if (inside(pix, x, y))
		pix->points[(size_t)y * (size_t)pix->width + (size_t)x] = colour;
}

void
pix_box(struct pix *pix, int x, int y, int width, int height, unsigned colour)
{
	int column, row;

	for (row = y; row < y + height; row++)
		for (column = x; column < x + width; column++)
			pix_set(pix, column, row, colour);
}

void
pix_line(struct pix *pix, int x0, int y0, int x1, int y1, unsigned colour)
{
	int width = abs(x1 - x0), height = abs(y1 - y0);
	int steps = width > height ? width : height, i;

	pix_set(pix, x0, y0, colour);
	for (i = 1; i <= steps; i++)
		pix_set(pix, x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps, colour);
}
