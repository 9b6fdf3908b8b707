"""What a platform does with the RTU frames of a stream, made with pymodbus, for
TestFramesAreReadByAnotherDecoder.

Usage: frames.py HEX… prints the unit, the function and the values of each frame.
Without arguments it prints read requests of functions 1 to 4, in hexadecimal.
"""
import sys

from pymodbus.bit_read_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.factory import ClientDecoder
from pymodbus.register_read_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest
from pymodbus.transaction import ModbusRtuFramer

framer = ModbusRtuFramer(ClientDecoder())
if len(sys.argv) < 2:
    for kind, start, count in ((ReadCoilsRequest, 5, 4), (ReadDiscreteInputsRequest, 16, 3),
                               (ReadHoldingRegistersRequest, 4, 3), (ReadInputRegistersRequest, 2, 1)):
        print(framer.buildPacket(kind(start, count, 1)).hex())
for frame in sys.argv[1:]:
    seen = []
    framer.processIncomingPacket(bytes.fromhex(frame), seen.append, 1, single=False)
    for answer in seen:
        values = getattr(answer, "registers", None) or [int(b) for b in getattr(answer, "bits", [])]
        print(answer.unit_id, answer.function_code, *values)
    if not seen:
        print("no frame")
        framer.resetFrame()
