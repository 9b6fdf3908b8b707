"""A Modbus slave made with pymodbus, for TestInterop.

Usage: slave.py tcp PORT | slave.py rtu PATH; without arguments it only looks
whether the pymodbus that is installed will do.

Its values are written with struct and pymodbus's own payload builder. After
each write it prints the table, the address and the values it holds then.
"""
import struct
import sys

from pymodbus.constants import Endian
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.payload import BinaryPayloadBuilder
from pymodbus.server import StartSerialServer, StartTcpServer
from pymodbus.transaction import ModbusRtuFramer


class Block(ModbusSequentialDataBlock):
    """A table that tells what is written to it."""

    def __init__(self, name, values):
        super().__init__(0, values)
        self.name = name

    def setValues(self, address, values):
        super().setValues(address, values)
        held = self.getValues(address, len(values) if isinstance(values, list) else 1)
        print(self.name, address, " ".join(f"{int(v):04x}" for v in held), flush=True)


def put(registers, address, *words):
    registers[address:address + len(words)] = words


def pack(registers, address, fmt, *values):
    data = struct.pack(">" + fmt, *values)
    put(registers, address, *struct.unpack(f">{len(data) // 2}H", data))


def holding():
    r = [0] * 300
    pack(r, 0, "h", -5)                      # int8
    pack(r, 1, "H", 200)                     # uint8
    pack(r, 2, "h", -12345)                  # int16
    pack(r, 3, "H", 54321)                   # uint16
    put(r, 4, 0x1234)                        # bcd16
    put(r, 5, 0x1234, 0x5678)                # bcd32
    put(r, 7, 1)                             # bool
    put(r, 8, 0xA5C3)                        # bits
    put(r, 9, 2345)                          # scale
    put(r, 10, 2)                            # enum
    pack(r, 11, "Hh", 2305, -1)              # scale_from
    pack(r, 13, "hhh", 1, -2, 3)             # array
    pack(r, 20, "8s", b"Pump 7")             # string
    pack(r, 24, "4s", b"\xde\xad\xbe\xef")   # bytes
    put(r, 26, 1 << 0, 1 << 1)               # flags 0 and 17
    pack(r, 28, "I", 1700000000)             # unix32
    pack(r, 30, "Q", 1700000000123)          # unix64ms
    put(r, 34, 24, 2 << 8 | 4 << 5 | 29, 12 << 8 | 34, 56789)  # iec870
    put(r, 38, 0x2402, 0x2912, 0x3456)       # bcd6
    put(r, 41, 2024, 2, 29, 12, 34, 56)      # ymdhms
    orders = [(Endian.Big, Endian.Big), (Endian.Big, Endian.Little), (Endian.Little, Endian.Big), (Endian.Little, Endian.Little)]
    for at, (byte, word) in zip((100, 120, 140, 160), orders):  # ABCD, CDAB, BADC, DCBA
        b = BinaryPayloadBuilder(byteorder=byte, wordorder=word)
        b.add_32bit_int(-123456789)
        b.add_32bit_uint(3123456789)
        b.add_32bit_float(230.1)
        b.add_64bit_int(-1234567890123456789)
        b.add_64bit_uint(12345678901234567890)
        b.add_64bit_float(3.141592653589793)
        put(r, at, *b.to_registers())
    put(r, 180, *struct.unpack("<4H", b"swap me!"))
    put(r, 220, 0x0F00)                      # its bit 3 is written
    return r


def inputs():
    r = [0] * 10
    pack(r, 0, "f", 21.5)
    pack(r, 2, "H", 777)
    return r


coils = [False] * 40
coils[0] = True
coils[5:9] = [True, False, True, True]
discrete = [False] * 40
discrete[0] = True
discrete[17] = True

unit = ModbusSlaveContext(
    hr=Block("holding", holding()), ir=Block("input", inputs()),
    co=Block("coil", coils), di=Block("discrete", discrete), zero_mode=True)
context = ModbusServerContext(slaves={1: unit}, single=False)
if len(sys.argv) < 3:
    import serial_asyncio  # noqa: F401, pymodbus asks for it late
elif sys.argv[1] == "tcp":
    StartTcpServer(context=context, address=("127.0.0.1", int(sys.argv[2])))
else:
    StartSerialServer(context=context, framer=ModbusRtuFramer, port=sys.argv[2], baudrate=19200, timeout=0.1)
