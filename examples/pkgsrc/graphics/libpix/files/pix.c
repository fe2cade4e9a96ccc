#include "config.h"

#if HAVE_REALLOCARRAY
#define _DEFAULT_SOURCE
#define _OPENBSD_SOURCE
#endif
#include <stdlib.h>

#include "pix.h"

struct pix *
pix_new(int width, int height, unsigned colour)
{
	struct pix *pix;

	if (width < 1 || height < 1 || (pix = malloc(sizeof(*pix))) == NULL)
		return NULL;
	pix->width = width;
	pix->height = height;
#if HAVE_REALLOCARRAY
	pix->points = reallocarray(NULL, (size_t)width * sizeof(unsigned), (size_t)height);
#else
	pix->points = calloc((size_t)width * sizeof(unsigned), (size_t)height);
#endif
	if (pix->points == NULL) {
		free(pix);
		return NULL;
	}
	pix_box(pix, 0, 0, width, height, colour);
	return pix;
}

void
pix_free(struct pix *pix)
{
	if (pix != NULL)
		free(pix->points);
	free(pix);
}

int
pix_write_ppm(const struct pix *pix, FILE *out)
{
	unsigned colour;
	int x, y;

	fprintf(out, "P6\n%d %d\n255\n", pix->width, pix->height);
	for (y = 0; y < pix->height; y++) {
		for (x = 0; x < pix->width; x++) {
			colour = pix_get(pix, x, y);
			putc((int)(colour >> 16 & 0xff), out);
			putc((int)(colour >> 8 & 0xff), out);
			putc((int)(colour & 0xff), out);
		}
	}
	return fflush(out);
}

/* A letter a point, denser for darker. */
int
pix_write_text(const struct pix *pix, FILE *out)
{
	static const char ramp[] = "@#*+=-:. ";
	unsigned colour, light;
	int x, y;

	for (y = 0; y < pix->height; y++) {
		for (x = 0; x < pix->width; x++) {
			colour = pix_get(pix, x, y);
			light = (colour >> 16 & 0xff) + (colour >> 8 & 0xff) + (colour & 0xff);
			putc(ramp[light * (sizeof(ramp) - 2) / (3 * 255)], out);
		}
		putc('\n', out);
	}
	return fflush(out);
}
