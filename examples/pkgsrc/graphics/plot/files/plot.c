/* Draws the numbers on standard input as a chart. */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <pix.h>
#include <vec.h>

#define WHITE	0xffffffu
#define GREY	0x888888u
#define BLACK	0x000000u

static void
read_numbers(struct list *numbers)
{
	double *number, value;

	while (scanf("%lf", &value) == 1) {
		if ((number = malloc(sizeof(*number))) == NULL)
			exit(71);
		*number = value;
		list_add(numbers, number);
	}
}

static struct pix *
draw(const struct list *numbers, int width, int height)
{
	struct pix *pix = pix_new(width, height, WHITE);
	double low = 0, high = 0, value;
	int x, y, last_x = 0, last_y = 0;
	size_t i;

	if (pix == NULL)
		return NULL;
	for (i = 0; i < numbers->count; i++) {
		value = *(double *)numbers->items[i];
		low = value < low ? value : low;
		high = value > high ? value : high;
	}
	if (high <= low)
		high = low + 1;
	y = (int)((high - 0) / (high - low) * (height - 1) + 0.5);
	pix_line(pix, 0, y, width - 1, y, GREY);
	for (i = 0; i < numbers->count; i++) {
		value = *(double *)numbers->items[i];
		x = numbers->count > 1 ? (int)(i * (size_t)(width - 1) / (numbers->count - 1)) : 0;
		y = (int)((high - value) / (high - low) * (height - 1) + 0.5);
		pix_line(pix, i > 0 ? last_x : x, i > 0 ? last_y : y, x, y, BLACK);
		last_x = x;
		last_y = y;
	}
	return pix;
}

int
main(int argc, char **argv)
{
	struct list numbers;
	struct pix *pix;
	int c, height = 16, text = 0, width = 64;

	while ((c = getopt(argc, argv, "h:tw:")) != -1) {
		switch (c) {
		case 'h':
			height = atoi(optarg);
			break;
		case 't':
			text = 1;
			break;
		case 'w':
			width = atoi(optarg);
			break;
		default:
			fprintf(stderr, "usage: plot [-t] [-h height] [-w width] < numbers\n");
			return 64;
		}
	}
	list_init(&numbers);
	read_numbers(&numbers);
	if ((pix = draw(&numbers, width, height)) == NULL) {
		fprintf(stderr, "plot: no picture of %d by %d points\n", width, height);
		return 64;
	}
	c = text ? pix_write_text(pix, stdout) : pix_write_ppm(pix, stdout);
	pix_free(pix);
	return c == 0 ? 0 : 74;
}
