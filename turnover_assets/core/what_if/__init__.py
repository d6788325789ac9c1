"""What-if questions: forecasts as they would be, had some of what they rest on been otherwise.

What belongs here: reading a question, changing tables as it says, series that there are not yet, and the
answer. What does not: the features and models, which are those of every forecast, and who may ask (serving/).
"""
