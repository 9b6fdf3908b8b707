/* A Modbus slave made with libmodbus, for TestInterop.
 *
 * Usage: slave tcp PORT | slave rtu PATH
 *
 * Its values are words written out by hand, and integers that libmodbus splits.
 * (Its float functions swap the bytes of each word up to version 3.1.6.) After
 * each write it prints the table, the address and the values it holds then. */
#include <errno.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUT(at, ...) do { \
	const uint16_t words[] = { __VA_ARGS__ }; \
	memcpy(map->tab_registers + (at), words, sizeof words); \
} while (0)

static void set_holding(modbus_mapping_t *map)
{
	uint16_t *r = map->tab_registers;

	PUT(0, 0xFFFB);                                  /* int8 -5 */
	PUT(1, 200);                                     /* uint8 */
	PUT(2, (uint16_t)-12345);                        /* int16 */
	PUT(3, 54321);                                   /* uint16 */
	PUT(4, 0x1234);                                  /* bcd16 */
	PUT(5, 0x1234, 0x5678);                          /* bcd32 */
	PUT(7, 1);                                       /* bool */
	PUT(8, 0xA5C3);                                  /* bits */
	PUT(9, 2345);                                    /* scale */
	PUT(10, 2);                                      /* enum */
	PUT(11, 2305, 0xFFFF);                           /* scale_from */
	PUT(13, 1, 0xFFFE, 3);                           /* array */
	PUT(20, 0x5075, 0x6D70, 0x2037, 0);              /* "Pump 7" */
	PUT(24, 0xDEAD, 0xBEEF);                         /* bytes */
	PUT(26, 0x0001, 0x0002);                         /* flags 0 and 17 */
	MODBUS_SET_INT32_TO_INT16(r, 28, 1700000000);    /* unix32 */
	MODBUS_SET_INT64_TO_INT16(r, 30, 1700000000123); /* unix64ms */
	PUT(34, 24, 0x029D, 0x0C22, 56789);              /* iec870 */
	PUT(38, 0x2402, 0x2912, 0x3456);                 /* bcd6 */
	PUT(41, 2024, 2, 29, 12, 34, 56);                /* ymdhms */

	MODBUS_SET_INT32_TO_INT16(r, 100, -123456789);   /* ABCD */
	MODBUS_SET_INT32_TO_INT16(r, 102, 3123456789u);
	PUT(104, 0x4366, 0x199A);
	MODBUS_SET_INT64_TO_INT16(r, 106, -1234567890123456789);
	PUT(110, 0xAB54, 0xA98C, 0xEB1F, 0x0AD2);
	PUT(114, 0x4009, 0x21FB, 0x5444, 0x2D18);

	PUT(120, 0x32EB, 0xF8A4, 0x2B15, 0xBA2C);        /* CDAB */
	PUT(124, 0x199A, 0x4366);
	PUT(126, 0x7EEB, 0x8216, 0xEF0B, 0xEEDD);
	PUT(130, 0x0AD2, 0xEB1F, 0xA98C, 0xAB54);
	PUT(134, 0x2D18, 0x5444, 0x21FB, 0x4009);

	PUT(140, 0xA4F8, 0xEB32, 0x2CBA, 0x152B);        /* BADC */
	PUT(144, 0x6643, 0x9A19);
	PUT(146, 0xDDEE, 0x0BEF, 0x1682, 0xEB7E);
	PUT(150, 0x54AB, 0x8CA9, 0x1FEB, 0xD20A);
	PUT(154, 0x0940, 0xFB21, 0x4454, 0x182D);

	PUT(160, 0xEB32, 0xA4F8, 0x152B, 0x2CBA);        /* DCBA */
	PUT(164, 0x9A19, 0x6643);
	PUT(166, 0xEB7E, 0x1682, 0x0BEF, 0xDDEE);
	PUT(170, 0xD20A, 0x1FEB, 0x8CA9, 0x54AB);
	PUT(174, 0x182D, 0x4454, 0xFB21, 0x0940);

	PUT(180, 0x7773, 0x7061, 0x6D20, 0x2165);        /* "swap me!", bytes swapped */
	PUT(220, 0x0F00);                                /* its bit 3 is written */
}

static modbus_mapping_t *new_map(void)
{
	modbus_mapping_t *map = modbus_mapping_new(40, 40, 300, 10);

	if (map == NULL)
		exit(1);
	set_holding(map);
	map->tab_input_registers[0] = 0x41AC;            /* 21.5 */
	map->tab_input_registers[2] = 777;
	map->tab_bits[0] = map->tab_bits[5] = map->tab_bits[7] = map->tab_bits[8] = 1;
	map->tab_input_bits[0] = map->tab_input_bits[17] = 1;
	return map;
}

/* tell prints what a write has left. */
static void tell(const modbus_mapping_t *map, const uint8_t *pdu)
{
	int at = pdu[1] << 8 | pdu[2], count = 1, coil = pdu[0] == 5 || pdu[0] == 15;

	if (pdu[0] != 5 && pdu[0] != 6 && pdu[0] != 15 && pdu[0] != 16 && pdu[0] != 22)
		return;
	if (pdu[0] == 15 || pdu[0] == 16)
		count = pdu[3] << 8 | pdu[4];
	if (at + count > (coil ? map->nb_bits : map->nb_registers))
		return; /* refused */
	printf("%s %d", coil ? "coil" : "holding", at);
	for (int i = at; i < at + count; i++)
		printf(" %04x", coil ? map->tab_bits[i] : map->tab_registers[i]);
	printf("\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	uint8_t request[MODBUS_MAX_ADU_LENGTH];
	int tcp = argc == 3 && strcmp(argv[1], "tcp") == 0, listener = -1;
	modbus_t *bus = tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2]))
			    : modbus_new_rtu(argv[2], 19200, 'N', 8, 1);
	modbus_mapping_t *map = new_map();

	if (bus == NULL || modbus_set_slave(bus, 1) < 0)
		return 1;
	if (tcp && (listener = modbus_tcp_listen(bus, 1)) < 0)
		return 1;
	for (;;) {
		if ((tcp ? modbus_tcp_accept(bus, &listener) : modbus_connect(bus)) < 0)
			return 1;
		for (;;) {
			int size = modbus_receive(bus, request);

			if (size < 0 && (tcp || (errno != EMBBADCRC && errno != ETIMEDOUT)))
				break;
			if (size <= 0)
				continue;
			modbus_reply(bus, request, size, map);
			tell(map, request + modbus_get_header_length(bus));
		}
		modbus_close(bus);
	}
}
