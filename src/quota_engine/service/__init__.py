"""The HTTP service: a thin face over :class:`~quota_engine.AsyncQuotaEngine`, with no rule of its own.

``configuration`` says how it is set up, ``wire`` what goes over the wire, ``calls`` which calls there are, ``http``
how a call is taken and answered, ``application`` puts it together, ``running`` runs it. It needs the extra ``service``.
"""
