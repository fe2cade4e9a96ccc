/* Pictures in memory. A colour is 0xRRGGBB; what lies outside the picture is not drawn. */

#ifndef PIX_H
#define PIX_H

#include <stdio.h>

struct pix {
	int	  width;
	int	  height;
	unsigned *points;	/* row by row */
};

struct pix	*pix_new(int width, int height, unsigned colour);
void		 pix_free(struct pix *);
unsigned	 pix_get(const struct pix *, int x, int y);
void		 pix_set(struct pix *, int x, int y, unsigned colour);
void		 pix_box(struct pix *, int x, int y, int width, int height, unsigned colour);
void		 pix_line(struct pix *, int x0, int y0, int x1, int y1, unsigned colour);
int		 pix_write_ppm(const struct pix *, FILE *);
int		 pix_write_text(const struct pix *, FILE *);

#endif
