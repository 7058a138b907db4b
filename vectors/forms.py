"""How the vectors write messages and packets as JSON."""


def payload_of(step):
    """The message of a step: whether it is text, and its bytes."""
    if "text" in step:
        return True, step["text"].encode()
    if "hex" in step:
        return False, bytes.fromhex(step["hex"])
    repeat = step["repeat"]
    if "text" in repeat:
        return True, repeat["text"].encode() * repeat["times"]
    return False, bytes([repeat["byte"]]) * repeat["length"]


def message_as_json(text, payload):
    if len(payload) <= 64:
        return {"text": payload.decode()} if text else {"hex": payload.hex()}
    if text:
        one = payload.decode()[0]
        return {"repeat": {"text": one, "times": len(payload) // len(one.encode())}}
    return {"repeat": {"byte": payload[0], "length": len(payload)}}


def packet_as_json(data):
    if len(data) <= 256:
        return data.hex()
    fnv1a = 0xCBF29CE484222325
    for byte in data:
        fnv1a = (fnv1a ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return {"begins": data[:64].hex(), "length": len(data), "fnv1a": f"{fnv1a:016x}"}


def without_words(packet):
    """The words of ABORT are free, and of ENDED `unavailable`."""
    if not isinstance(packet, str):
        return packet
    if packet.startswith("27") and packet[10:12] == "07":
        return packet[:12]
    return packet[:6] if packet.startswith("1a") else packet
